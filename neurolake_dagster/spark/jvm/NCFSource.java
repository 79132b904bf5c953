package neurolake.spark;

import java.util.ArrayList;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

import org.apache.spark.sql.DataFrameWriter;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.SQLContext;
import org.apache.spark.sql.SaveMode;
import org.apache.spark.sql.connector.catalog.Table;
import org.apache.spark.sql.connector.catalog.TableCapability;
import org.apache.spark.sql.connector.expressions.Transform;
import org.apache.spark.sql.connector.metric.CustomMetric;
import org.apache.spark.sql.connector.read.Batch;
import org.apache.spark.sql.connector.read.PartitionReaderFactory;
import org.apache.spark.sql.connector.read.Scan;
import org.apache.spark.sql.connector.read.ScanBuilder;
import org.apache.spark.sql.connector.read.SupportsPushDownFilters;
import org.apache.spark.sql.connector.read.SupportsPushDownRequiredColumns;
import org.apache.spark.sql.connector.write.BatchWrite;
import org.apache.spark.sql.connector.write.DataWriterFactory;
import org.apache.spark.sql.connector.write.LogicalWriteInfo;
import org.apache.spark.sql.connector.write.PhysicalWriteInfo;
import org.apache.spark.sql.connector.write.Write;
import org.apache.spark.sql.connector.write.WriteBuilder;
import org.apache.spark.sql.execution.datasources.v2.python.PythonBatch;
import org.apache.spark.sql.execution.datasources.v2.python.PythonBatchWrite;
import org.apache.spark.sql.execution.datasources.v2.python.PythonBatchWriterFactory;
import org.apache.spark.sql.execution.datasources.v2.python.PythonDataSourceCreationResult;
import org.apache.spark.sql.execution.datasources.v2.python.PythonDataSourceReadInfo;
import org.apache.spark.sql.execution.datasources.v2.python.PythonDataSourceV2;
import org.apache.spark.sql.execution.datasources.v2.python.PythonFilterPushdownResult;
import org.apache.spark.sql.execution.datasources.v2.python.PythonPartitionReaderFactory;
import org.apache.spark.sql.execution.datasources.v2.python.PythonScan;
import org.apache.spark.sql.execution.datasources.v2.python.PythonTable;
import org.apache.spark.sql.execution.datasources.v2.python.PythonWrite;
import org.apache.spark.sql.execution.datasources.v2.python.PythonWriteBuilder;
import org.apache.spark.sql.execution.datasources.v2.python.UserDefinedPythonDataSource;
import org.apache.spark.sql.internal.SQLConf;
import org.apache.spark.sql.sources.BaseRelation;
import org.apache.spark.sql.sources.CreatableRelationProvider;
import org.apache.spark.sql.sources.DataSourceRegister;
import org.apache.spark.sql.sources.Filter;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.StructField;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.sql.util.CaseInsensitiveStringMap;

import scala.Option;
import scala.Some;
import scala.jdk.javaapi.CollectionConverters;

/**
 * The format "ncf" as Spark sees it: the Python data source of that name, with what Spark 4.2 does
 * not do for formats written in Python. A query's columns and filters reach the reader, each
 * query's its own; batches of columns stay batches; all save modes and partitionBy work.
 *
 * What is read and written is the Python side's (neurolake_dagster.spark.datasource). Compiled by
 * Janino, which Spark ships: no lambdas, no generic methods of our own.
 */
public class NCFSource extends PythonDataSourceV2 implements DataSourceRegister, CreatableRelationProvider {
    /** As the Python side registers itself for this class. */
    static final String NAME = "ncf_python";

    @Override public String shortName() {
        return "ncf";
    }

    @Override public void setShortName(String name) {
        super.setShortName(NAME);
    }

    /** As in Spark's own file formats: a caller's NOT NULL does not make the files hold no nulls. */
    @Override public Table getTable(StructType schema, Transform[] partitioning, Map properties) {
        return new Readable(this, schema.asNullable());
    }

    /** Tells the Python side that it is to read, and that each query's filters are its own here. */
    @Override public PythonDataSourceCreationResult getOrCreateDataSourceInPython(
        String name, CaseInsensitiveStringMap options, Option schema
    ) {
        Map given = new HashMap(options.asCaseSensitiveMap());
        given.putIfAbsent("pushdown", "true");
        return super.getOrCreateDataSourceInPython(NAME, new CaseInsensitiveStringMap(given), schema);
    }

    /** Writes through the Python side, which knows all modes; Spark's own path knows two of four. */
    @Override public BaseRelation createRelation(
        SQLContext context, SaveMode mode, scala.collection.immutable.Map options, Dataset rows
    ) {
        DataFrameWriter writer = rows.write().format(Writable.class.getName());
        writer = writer.options(WriteOptions.of(CollectionConverters.asJava(options), mode));
        writer.mode(mode == SaveMode.Overwrite ? SaveMode.Overwrite : SaveMode.Append).save();
        return new Written(context, rows.schema());
    }

    /** The Python side refuses what it has no type for, by name. */
    @Override public boolean supportsDataType(DataType type) {
        return true;
    }

    /** The Python data source for writing; its tasks send their rows by `BatchWriters`. */
    public static class Writable extends PythonDataSourceV2 {
        @Override public void setShortName(String name) {
            super.setShortName(NAME);
        }

        @Override public Table getTable(StructType schema, Transform[] partitioning, Map properties) {
            return new WritableTable(this, schema);
        }
    }

    static class WritableTable extends PythonTable {
        private final Writable source;

        WritableTable(Writable source, StructType schema) {
            super(source, NAME, schema);
            this.source = source;
        }

        @Override public WriteBuilder newWriteBuilder(LogicalWriteInfo info) {
            return new NCFWriteBuilder(source, info);
        }
    }

    static class NCFWriteBuilder extends PythonWriteBuilder {
        private final Writable source;
        private final LogicalWriteInfo info;
        private boolean truncates;

        NCFWriteBuilder(Writable source, LogicalWriteInfo info) {
            super(source, NAME, info);
            this.source = source;
            this.info = info;
        }

        @Override public WriteBuilder truncate() {
            truncates = true;
            return this;
        }

        @Override public Write build() {
            return new NCFWrite(source, info, truncates);
        }
    }

    static class NCFWrite extends PythonWrite {
        private final Writable source;
        private final LogicalWriteInfo info;
        private final boolean truncates;

        NCFWrite(Writable source, LogicalWriteInfo info, boolean truncates) {
            super(source, NAME, info, truncates);
            this.source = source;
            this.info = info;
            this.truncates = truncates;
        }

        @Override public BatchWrite toBatch() {
            return new NCFBatchWrite(source, info, truncates);
        }

        @Override public CustomMetric[] supportedCustomMetrics() {
            return new CustomMetric[0];
        }
    }

    static class NCFBatchWrite extends PythonBatchWrite {
        NCFBatchWrite(Writable source, LogicalWriteInfo info, boolean truncates) {
            super(source, NAME, info, truncates);
        }

        @Override public DataWriterFactory createBatchWriterFactory(PhysicalWriteInfo info) {
            return new BatchWriters((PythonBatchWriterFactory) super.createBatchWriterFactory(info));
        }
    }

    /** What a write leaves for Spark to hold. */
    static class Written extends BaseRelation {
        private final SQLContext context;
        private final StructType schema;

        Written(SQLContext context, StructType schema) {
            this.context = context;
            this.schema = schema;
        }

        @Override public SQLContext sqlContext() {
            return context;
        }

        @Override public StructType schema() {
            return schema;
        }
    }

    /** A table for reading only, so that Spark writes by `createRelation`. */
    static class Readable extends PythonTable {
        private final NCFSource source;
        private final StructType schema;

        Readable(NCFSource source, StructType schema) {
            super(source, source.shortName(), schema);
            this.source = source;
            this.schema = schema;
        }

        @Override public Set capabilities() {
            return EnumSet.of(TableCapability.BATCH_READ);
        }

        @Override public ScanBuilder newScanBuilder(CaseInsensitiveStringMap options) {
            return new Builder(source, schema, options);
        }
    }

    /** Gathers a query's columns and filters, and asks the Python side once for its partitions. */
    static class Builder implements SupportsPushDownFilters, SupportsPushDownRequiredColumns {
        private final NCFSource source;
        private final StructType schema;
        private final CaseInsensitiveStringMap options;
        private StructType required;
        private Filter[] filters = new Filter[0];

        Builder(NCFSource source, StructType schema, CaseInsensitiveStringMap options) {
            this.source = source;
            this.schema = schema;
            this.options = options;
            this.required = schema;
        }

        /** Takes them all and leaves them all to Spark too: the Python side may skip by any. */
        @Override public Filter[] pushFilters(Filter[] given) {
            filters = SQLConf.get().pythonFilterPushDown() ? PythonFilters.of(given) : new Filter[0];
            return given;
        }

        @Override public Filter[] pushedFilters() {
            return filters;
        }

        @Override public void pruneColumns(StructType asked) {
            Set names = new HashSet(java.util.Arrays.asList(asked.fieldNames()));
            List kept = new ArrayList();
            StructField[] fields = schema.fields();
            for (int i = 0; i < fields.length; i++) {
                if (names.contains(fields[i].name())) {
                    kept.add(fields[i]);
                }
            }
            if (kept.isEmpty() && fields.length > 0) {
                kept.add(narrowest(fields)); // batches count their rows by a column
            }
            required = new StructType((StructField[]) kept.toArray(new StructField[0]));
        }

        private static StructField narrowest(StructField[] fields) {
            StructField found = fields[0];
            for (int i = 1; i < fields.length; i++) {
                if (fields[i].dataType().defaultSize() < found.dataType().defaultSize()) {
                    found = fields[i];
                }
            }
            return found;
        }

        @Override public Scan build() {
            UserDefinedPythonDataSource python = source.source();
            PythonDataSourceCreationResult created =
                source.getOrCreateDataSourceInPython(NAME, options, new Some(schema));
            Option pushed = Option.empty();
            if (filters.length > 0) {
                pushed = python.pushdownFiltersInPython(created, required, filters);
            }
            if (pushed.isEmpty()) {
                PythonDataSourceReadInfo read = python.createReadInfoInPython(created, required, false);
                return new NCFScan(new Asked(python, read), required, options, new Filter[0]);
            }
            PythonFilterPushdownResult result = (PythonFilterPushdownResult) pushed.get();
            List taken = new ArrayList();
            for (int i = 0; i < filters.length; i++) {
                if (((Boolean) result.isFilterPushed().apply(i)).booleanValue()) {
                    taken.add(filters[i]);
                }
            }
            Filter[] used = (Filter[]) taken.toArray(new Filter[0]);
            return new NCFScan(new Asked(python, result.readInfo()), required, options, used);
        }
    }

    /** The source of one query; Spark keeps one for all queries of a DataFrame. */
    static class Asked extends PythonDataSourceV2 {
        private final UserDefinedPythonDataSource python;
        private final PythonDataSourceReadInfo read;

        Asked(UserDefinedPythonDataSource python, PythonDataSourceReadInfo read) {
            this.python = python;
            this.read = read;
        }

        @Override public UserDefinedPythonDataSource source() {
            return python;
        }

        @Override public PythonDataSourceReadInfo getOrCreateReadInfo(
            String name, CaseInsensitiveStringMap options, StructType schema, boolean isStreaming
        ) {
            return read;
        }
    }

    /** One query's scan. */
    static class NCFScan extends PythonScan {
        private final Asked asked;
        private final StructType schema;
        private final CaseInsensitiveStringMap options;
        private final String told;

        NCFScan(Asked asked, StructType schema, CaseInsensitiveStringMap options, Filter[] filters) {
            super(asked, NAME, schema, options, filters);
            this.asked = asked;
            this.schema = schema;
            this.options = options;
            this.told = "ncf PushedFilters: " + java.util.Arrays.toString(filters);
        }

        @Override public String description() {
            return told;
        }

        @Override public Batch toBatch() {
            return new NCFBatch(asked, schema, options);
        }

        @Override public Scan.ColumnarSupportMode columnarSupportMode() {
            return Scan.ColumnarSupportMode.SUPPORTED;
        }

        @Override public CustomMetric[] supportedCustomMetrics() {
            return new CustomMetric[0];
        }
    }

    static class NCFBatch extends PythonBatch {
        NCFBatch(Asked asked, StructType schema, CaseInsensitiveStringMap options) {
            super(asked, NAME, schema, options);
        }

        @Override public PartitionReaderFactory createReaderFactory() {
            return new BatchReaders((PythonPartitionReaderFactory) super.createReaderFactory());
        }
    }
}
