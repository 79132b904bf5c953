package neurolake.spark;

import java.util.HashMap;
import java.util.Map;

import org.apache.spark.sql.SaveMode;

/** What df.write was asked for, as the options of the Python side. */
final class WriteOptions {
    private static final String PARTITION_COLUMNS = "__partition_columns";

    private WriteOptions() {}

    static Map of(Map given, SaveMode mode) {
        Map options = new HashMap(given);
        Object columns = options.remove(PARTITION_COLUMNS);
        if (columns != null) {
            options.put("partitionBy", columns); // a JSON list of names, on both sides
        }
        if (mode == SaveMode.ErrorIfExists) {
            // The default mode: an `ifExists` of the caller's is more than that.
            options.putIfAbsent("ifExists", "error");
        } else if (mode == SaveMode.Ignore) {
            options.put("ifExists", "ignore");
        }
        return options;
    }
}
