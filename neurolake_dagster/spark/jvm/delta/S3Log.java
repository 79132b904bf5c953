package neurolake.spark.delta;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Iterator;

import io.delta.storage.S3SingleDriverLogStore;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FSDataOutputStreamBuilder;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.io.IOUtils;

/**
 * The log of a Delta table on S3: a commit is put only where nobody has put one.
 *
 * Delta's own log for S3 looks whether a version is free, and then overwrites it: it knows of no
 * commit that another process makes in between, and takes it away without a word.
 */
public final class S3Log extends S3SingleDriverLogStore {
    private static final String IF_ABSENT = "fs.option.create.conditional.overwrite";

    public S3Log(Configuration conf) {
        super(conf);
    }

    @Override
    public void write(Path path, Iterator actions, Boolean overwrite, Configuration conf)
            throws IOException {
        if (overwrite.booleanValue()) {
            super.write(path, actions, overwrite, conf);
            return;
        }
        byte[] commit = bytesOf(actions);
        FileSystem files = path.getFileSystem(conf);
        try {
            put(files, path, commit);
        } catch (IOException failure) {
            byte[] held = held(files, path, failure);
            // The answer to a first try was lost, and the second found what the first had put.
            if (!Arrays.equals(held, commit)) {
                throw new java.nio.file.FileAlreadyExistsException(path.toString());
            }
        }
    }

    private static byte[] bytesOf(Iterator actions) throws IOException {
        ByteArrayOutputStream lines = new ByteArrayOutputStream();
        while (actions.hasNext()) {
            lines.write((actions.next() + "\n").getBytes(StandardCharsets.UTF_8));
        }
        return lines.toByteArray();
    }

    private static void put(FileSystem files, Path path, byte[] commit) throws IOException {
        FSDataOutputStreamBuilder builder = files.createFile(path);
        builder.overwrite(false);
        builder.must(IF_ABSENT, "true");
        FSDataOutputStream stream = (FSDataOutputStream) builder.build();
        try {
            stream.write(commit);
        } catch (IOException failure) {
            stream.abort(); // closing would publish a part
            throw failure;
        }
        stream.close();
    }

    /** What lies at a path; where nothing can be read there, the write's own failure. */
    private static byte[] held(FileSystem files, Path path, IOException failure)
            throws IOException {
        ByteArrayOutputStream content = new ByteArrayOutputStream();
        try {
            FSDataInputStream stream = files.open(path);
            IOUtils.copyBytes(stream, content, 4096, true);
        } catch (IOException unread) {
            throw failure;
        }
        return content.toByteArray();
    }
}
