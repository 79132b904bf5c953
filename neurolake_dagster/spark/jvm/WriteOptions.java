package neurolake.spark;

import java.util.Map;
import java.util.TreeMap;

import org.apache.spark.sql.SaveMode;
import org.apache.spark.sql.internal.SQLConf;

/** What df.write was asked for, as the options of the Python side. */
final class WriteOptions {
    private static final String PARTITION_COLUMNS = "__partition_columns";

    private static final String OVERWRITE_MODE = "partitionOverwriteMode";

    private WriteOptions() {}

    static Map of(Map given, SaveMode mode) {
        Map options = new TreeMap(String.CASE_INSENSITIVE_ORDER); // Spark hands them on in lower case
        options.putAll(given);
        Object columns = options.remove(PARTITION_COLUMNS);
        if (columns != null) {
            options.put("partitionBy", columns); // a JSON list of names, on both sides
        }
        // As for Spark's own file formats: the session's word, unless the write says otherwise.
        String session = SQLConf.get().getConfString("spark.sql.sources." + OVERWRITE_MODE, "static");
        options.putIfAbsent(OVERWRITE_MODE, session);
        if (mode == SaveMode.ErrorIfExists) {
            // The default mode: an `ifExists` of the caller's is more than that.
            options.putIfAbsent("ifExists", "error");
        } else if (mode == SaveMode.Ignore) {
            options.put("ifExists", "ignore");
        }
        return options;
    }
}
