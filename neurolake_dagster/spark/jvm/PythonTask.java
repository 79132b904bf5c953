package neurolake.spark;

import org.apache.spark.TaskContext;
import org.apache.spark.sql.execution.python.ArrowPythonRunner;
import org.apache.spark.sql.execution.python.MapInBatchEvaluatorFactory;
import org.apache.spark.sql.types.Metadata;
import org.apache.spark.sql.types.StructField;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.sql.vectorized.ArrowColumnVector;
import org.apache.spark.sql.vectorized.ColumnarBatch;

import scala.collection.Iterator;

/** Runs a Python data source's function in a Python worker, as `MapInBatchEvaluatorFactory` does. */
final class PythonTask {
    private PythonTask() {}

    /**
     * The batches that the function gives, each with its columns in one struct.
     *
     * @param schema of the rows that are sent
     * @param batches iterators of rows, each row in a struct; each iterator is sent as one batch
     */
    static Iterator run(MapInBatchEvaluatorFactory map, StructType schema, java.util.Iterator batches) {
        StructField wrapped = new StructField("struct", schema, true, Metadata.empty());
        ArrowPythonRunner runner = new ArrowPythonRunner(
            map.org$apache$spark$sql$execution$python$MapInBatchEvaluatorFactory$$chainedFunc,
            map.org$apache$spark$sql$execution$python$MapInBatchEvaluatorFactory$$pythonEvalType,
            new int[][] {{0}},
            new StructType(new StructField[] {wrapped}),
            map.org$apache$spark$sql$execution$python$MapInBatchEvaluatorFactory$$sessionLocalTimeZone,
            map.org$apache$spark$sql$execution$python$MapInBatchEvaluatorFactory$$largeVarTypes,
            map.org$apache$spark$sql$execution$python$MapInBatchEvaluatorFactory$$pythonRunnerConf,
            map.pythonMetrics(),
            map.org$apache$spark$sql$execution$python$MapInBatchEvaluatorFactory$$jobArtifactUUID,
            map.org$apache$spark$sql$execution$python$MapInBatchEvaluatorFactory$$sessionUUID
        );
        TaskContext task = TaskContext.get();
        return runner.compute(asScala(batches), task.partitionId(), task);
    }

    /** A column of a batch that the function gave. */
    static ArrowColumnVector column(ColumnarBatch batch, int index) {
        return (ArrowColumnVector) ((ArrowColumnVector) batch.column(0)).getChild(index);
    }

    static Iterator asScala(java.util.Iterator items) {
        return scala.jdk.javaapi.CollectionConverters.asScala(items);
    }
}
