package neurolake.spark;

import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.LocalFileSystem;
import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.catalyst.expressions.GenericInternalRow;
import org.apache.spark.sql.connector.read.InputPartition;
import org.apache.spark.sql.connector.read.PartitionReader;
import org.apache.spark.sql.connector.read.PartitionReaderFactory;
import org.apache.spark.sql.execution.datasources.v2.python.PythonCustomMetric;
import org.apache.spark.sql.execution.datasources.v2.python.PythonInputPartition;
import org.apache.spark.sql.execution.datasources.v2.python.PythonPartitionReaderFactory;
import org.apache.spark.sql.execution.datasources.v2.python.UserDefinedPythonDataSource;
import org.apache.spark.sql.execution.python.MapInBatchEvaluatorFactory;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.sql.vectorized.ColumnVector;
import org.apache.spark.sql.vectorized.ColumnarBatch;

import java.nio.charset.StandardCharsets;
import java.util.Collections;

import scala.collection.Iterator;

/**
 * Hands on the Arrow batches of a Python data source as batches of columns.
 *
 * Spark 4.2 takes them apart row by row, through two projections: for two columns of 6 million
 * rows that takes twice as long as its whole scan of Parquet.
 */
public class BatchReaders implements PartitionReaderFactory {
    /** Written by `reading.py`. */
    private static final String INPUT_BYTES = "neurolake:input_bytes=";

    private final PythonPartitionReaderFactory python;

    BatchReaders(PythonPartitionReaderFactory python) {
        this.python = python;
    }

    @Override public boolean supportColumnarReads(InputPartition partition) {
        return true;
    }

    @Override public PartitionReader createReader(InputPartition partition) {
        return python.createReader(partition);
    }

    @Override public PartitionReader createColumnarReader(InputPartition partition) {
        UserDefinedPythonDataSource source =
            python.org$apache$spark$sql$execution$datasources$v2$python$PythonPartitionReaderFactory$$source;
        StructType schema =
            python.org$apache$spark$sql$execution$datasources$v2$python$PythonPartitionReaderFactory$$outputSchema;
        MapInBatchEvaluatorFactory map = source.createMapInBatchEvaluatorFactory(
            python.org$apache$spark$sql$execution$datasources$v2$python$PythonPartitionReaderFactory$$pickledReadFunc,
            "read_from_data_source",
            UserDefinedPythonDataSource.readInputSchema(),
            schema,
            PythonCustomMetric.pythonMetrics(),
            python.org$apache$spark$sql$execution$datasources$v2$python$PythonPartitionReaderFactory$$jobArtifactUUID,
            python.org$apache$spark$sql$execution$datasources$v2$python$PythonPartitionReaderFactory$$sessionUUID
        );
        PythonInputPartition planned = (PythonInputPartition) partition;
        // Spark's input bytes are what Hadoop's file systems count for the task's thread.
        FileSystem.getStatistics("file", LocalFileSystem.class)
            .incrementBytesRead(inputBytes(planned.pickedPartition()));
        InternalRow pickled = new GenericInternalRow(new Object[] {planned.pickedPartition()});
        InternalRow row = new GenericInternalRow(new Object[] {pickled});
        Object batch = PythonTask.asScala(Collections.singleton(row).iterator());
        java.util.Iterator sent = Collections.singleton(batch).iterator();
        return new Reader(PythonTask.run(map, UserDefinedPythonDataSource.readInputSchema(), sent), schema);
    }

    /** The stored bytes that a partition of ours says it reads, 0 of any other. */
    static long inputBytes(byte[] pickled) {
        String text = new String(pickled, StandardCharsets.ISO_8859_1);
        // The last: a file's name, pickled before it, may hold the same words.
        int start = text.lastIndexOf(INPUT_BYTES);
        int end = text.indexOf(';', Math.max(start, 0));
        return start < 0 ? 0 : Long.parseLong(text.substring(start + INPUT_BYTES.length(), end));
    }

    /** Yields each batch with its struct of columns opened. */
    static class Reader implements PartitionReader {
        private final Iterator batches;
        private final StructType schema;
        private ColumnarBatch batch;

        Reader(Iterator batches, StructType schema) {
            this.batches = batches;
            this.schema = schema;
        }

        @Override public boolean next() {
            if (!batches.hasNext()) {
                return false;
            }
            ColumnarBatch wrapped = (ColumnarBatch) batches.next();
            ColumnVector[] columns = new ColumnVector[schema.length()];
            for (int i = 0; i < columns.length; i++) {
                columns[i] = Columns.of(PythonTask.column(wrapped, i));
            }
            batch = new ColumnarBatch(columns, wrapped.numRows());
            return true;
        }

        @Override public Object get() {
            return batch;
        }

        @Override public void close() {}
    }
}
