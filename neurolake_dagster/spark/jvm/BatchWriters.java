package neurolake.spark;

import java.util.Iterator;

import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.catalyst.expressions.GenericInternalRow;
import org.apache.spark.sql.catalyst.expressions.UnsafeProjection;
import org.apache.spark.sql.catalyst.expressions.UnsafeRow;
import org.apache.spark.sql.connector.write.DataWriter;
import org.apache.spark.sql.connector.write.DataWriterFactory;
import org.apache.spark.sql.connector.write.WriterCommitMessage;
import org.apache.spark.sql.execution.datasources.v2.python.PythonBatchWriterFactory;
import org.apache.spark.sql.execution.datasources.v2.python.PythonCustomMetric;
import org.apache.spark.sql.execution.datasources.v2.python.PythonWriterCommitMessage;
import org.apache.spark.sql.execution.datasources.v2.python.UserDefinedPythonDataSource;
import org.apache.spark.sql.execution.python.MapInBatchEvaluatorFactory;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.DecimalType;
import org.apache.spark.sql.types.StructField;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.sql.vectorized.ColumnarBatch;

/**
 * Sends the rows of a write to the Python side.
 *
 * Spark 4.2 asks all columns after each row whether the batch is large enough, and makes a
 * BigDecimal of each decimal: a third of what a write of lineitem costs the JVM.
 */
public class BatchWriters implements DataWriterFactory {
    /** What a batch holds at most, but for its last row. */
    private static final int BATCH_ROWS = 10000;
    private static final long BATCH_BYTES = 8L << 20;

    private final PythonBatchWriterFactory python;

    BatchWriters(PythonBatchWriterFactory python) {
        this.python = python;
    }

    @Override public DataWriter createWriter(int partitionId, long taskId) {
        return new Writer(python);
    }

    /** Decimals of up to 18 digits lie in a row as whole numbers, and are sent as they lie there. */
    static StructType sent(StructType schema) {
        StructField[] fields = (StructField[]) schema.fields().clone();
        for (int i = 0; i < fields.length; i++) {
            DataType type = fields[i].dataType();
            if (type instanceof DecimalType && ((DecimalType) type).precision() <= 18) {
                fields[i] = new StructField(
                    fields[i].name(), DataTypes.LongType, fields[i].nullable(), fields[i].metadata()
                );
            }
        }
        return new StructType(fields);
    }

    /** Writes one task's rows by one call of the Python side. */
    static class Writer implements DataWriter {
        private final PythonBatchWriterFactory python;
        private WriterCommitMessage message;

        Writer(PythonBatchWriterFactory python) {
            this.python = python;
        }

        @Override public void writeAll(Iterator rows) {
            StructType schema = python.inputSchema();
            MapInBatchEvaluatorFactory map = python.source().createMapInBatchEvaluatorFactory(
                python.pickledWriteFunc(),
                "write_to_data_source",
                schema,
                UserDefinedPythonDataSource.writeOutputSchema(),
                PythonCustomMetric.pythonMetrics(),
                python.jobArtifactUUID(),
                python.sessionUUID()
            );
            scala.collection.Iterator told = PythonTask.run(map, sent(schema), new Batches(rows, schema));
            while (told.hasNext()) {
                ColumnarBatch batch = (ColumnarBatch) told.next();
                if (batch.numRows() > 0) {
                    message = new PythonWriterCommitMessage(PythonTask.column(batch, 0).getBinary(0));
                }
            }
            if (message == null) {
                throw new IllegalStateException("the Python side told nothing of what it wrote");
            }
        }

        @Override public void write(Object row) {
            throw new UnsupportedOperationException("rows are written all at once");
        }

        @Override public WriterCommitMessage commit() {
            return message;
        }

        @Override public void abort() {}

        @Override public void close() {}
    }

    /** The rows in iterators of one batch each. */
    static class Batches implements Iterator {
        private final Iterator rows;
        private final UnsafeProjection projection;

        Batches(Iterator rows, StructType schema) {
            this.rows = rows;
            this.projection = UnsafeProjection.create(schema);
        }

        @Override public boolean hasNext() {
            return rows.hasNext();
        }

        @Override public Object next() {
            return PythonTask.asScala(new Rows(rows, projection));
        }
    }

    /** The rows of one batch, each in a struct; the row holds until the next is asked for. */
    static class Rows implements Iterator {
        private final Iterator rows;
        private final UnsafeProjection projection;
        private final Object[] values = new Object[1];
        private final InternalRow struct = new GenericInternalRow(values);
        private int count;
        private long bytes;

        Rows(Iterator rows, UnsafeProjection projection) {
            this.rows = rows;
            this.projection = projection;
        }

        @Override public boolean hasNext() {
            return count < BATCH_ROWS && bytes < BATCH_BYTES && rows.hasNext();
        }

        @Override public Object next() {
            Object given = rows.next();
            UnsafeRow row =
                given instanceof UnsafeRow ? (UnsafeRow) given : projection.apply((InternalRow) given);
            count += 1;
            bytes += row.getSizeInBytes();
            values[0] = row;
            return struct;
        }
    }
}
