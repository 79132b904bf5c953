package neurolake.spark;

import org.apache.arrow.vector.BaseFixedWidthVector;
import org.apache.arrow.vector.BigIntVector;
import org.apache.arrow.vector.DateDayVector;
import org.apache.arrow.vector.DecimalVector;
import org.apache.arrow.vector.FieldVector;
import org.apache.arrow.vector.Float4Vector;
import org.apache.arrow.vector.Float8Vector;
import org.apache.arrow.vector.IntVector;
import org.apache.arrow.vector.TimeStampMicroTZVector;
import org.apache.arrow.vector.TimeStampMicroVector;
import org.apache.arrow.vector.ValueVector;
import org.apache.arrow.vector.VarCharVector;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.Decimal;
import org.apache.spark.sql.types.DecimalType;
import org.apache.spark.sql.vectorized.ArrowColumnVector;
import org.apache.spark.sql.vectorized.ColumnVector;
import org.apache.spark.sql.vectorized.ColumnarArray;
import org.apache.spark.sql.vectorized.ColumnarMap;
import org.apache.spark.unsafe.Platform;
import org.apache.spark.unsafe.types.UTF8String;

/**
 * Arrow's memory read at its address. Arrow's own accessors check each index, and make a BigDecimal
 * of each decimal. The memory is the batch's: a column holds until the next batch is read.
 */
final class Columns {
    private Columns() {}

    /** A view of the column: Spark closes what it is given, and the next batch needs the memory. */
    static ColumnVector of(ArrowColumnVector column) {
        ValueVector vector = column.getValueVector();
        if (vector instanceof IntVector || vector instanceof DateDayVector) {
            return new Ints(column.dataType(), (FieldVector) vector);
        }
        if (vector instanceof BigIntVector || vector instanceof TimeStampMicroTZVector
                || vector instanceof TimeStampMicroVector) {
            return new Longs(column.dataType(), (FieldVector) vector);
        }
        if (vector instanceof Float8Vector) {
            return new Doubles(column.dataType(), (FieldVector) vector);
        }
        if (vector instanceof Float4Vector) {
            return new Floats(column.dataType(), (FieldVector) vector);
        }
        if (vector instanceof VarCharVector) {
            return new Texts(column.dataType(), (FieldVector) vector);
        }
        if (vector instanceof DecimalVector && ((DecimalType) column.dataType()).precision() <= 18) {
            return new Decimals(column.dataType(), (FieldVector) vector);
        }
        return new Others(vector);
    }

    /** Types that have no faster way than Arrow's. */
    static class Others extends ArrowColumnVector {
        Others(ValueVector vector) {
            super(vector);
        }

        @Override public void close() {}
    }

    /** What all of them share: nulls, and no other way to be read. */
    abstract static class Flat extends ColumnVector {
        private final int nulls;
        private final long validity;
        final long values;

        Flat(DataType type, FieldVector vector) {
            super(type);
            nulls = vector.getNullCount();
            validity = nulls == 0 ? 0 : vector.getValidityBuffer().memoryAddress();
            values = vector.getDataBuffer().memoryAddress();
        }

        @Override public void close() {}

        @Override public boolean hasNull() {
            return nulls > 0;
        }

        @Override public int numNulls() {
            return nulls;
        }

        @Override public boolean isNullAt(int row) {
            return nulls > 0 && (Platform.getByte(null, validity + (row >> 3)) >> (row & 7) & 1) == 0;
        }

        @Override public boolean getBoolean(int row) {
            throw wrong();
        }

        @Override public byte getByte(int row) {
            throw wrong();
        }

        @Override public short getShort(int row) {
            throw wrong();
        }

        @Override public int getInt(int row) {
            throw wrong();
        }

        @Override public long getLong(int row) {
            throw wrong();
        }

        @Override public float getFloat(int row) {
            throw wrong();
        }

        @Override public double getDouble(int row) {
            throw wrong();
        }

        @Override public ColumnarArray getArray(int row) {
            throw wrong();
        }

        @Override public ColumnarMap getMap(int row) {
            throw wrong();
        }

        @Override public Decimal getDecimal(int row, int precision, int scale) {
            throw wrong();
        }

        @Override public UTF8String getUTF8String(int row) {
            throw wrong();
        }

        @Override public byte[] getBinary(int row) {
            throw wrong();
        }

        @Override public ColumnVector getChild(int ordinal) {
            throw wrong();
        }

        private UnsupportedOperationException wrong() {
            return new UnsupportedOperationException("a column of " + dataType().simpleString());
        }
    }

    static class Ints extends Flat {
        Ints(DataType type, FieldVector vector) {
            super(type, vector);
        }

        @Override public int getInt(int row) {
            return Platform.getInt(null, values + 4L * row);
        }
    }

    static class Longs extends Flat {
        Longs(DataType type, FieldVector vector) {
            super(type, vector);
        }

        @Override public long getLong(int row) {
            return Platform.getLong(null, values + 8L * row);
        }
    }

    static class Floats extends Flat {
        Floats(DataType type, FieldVector vector) {
            super(type, vector);
        }

        @Override public float getFloat(int row) {
            return Platform.getFloat(null, values + 4L * row);
        }
    }

    static class Doubles extends Flat {
        Doubles(DataType type, FieldVector vector) {
            super(type, vector);
        }

        @Override public double getDouble(int row) {
            return Platform.getDouble(null, values + 8L * row);
        }
    }

    /** Decimals of up to 18 digits: the low word of Arrow's 16 bytes is the whole number. */
    static class Decimals extends Flat {
        Decimals(DataType type, FieldVector vector) {
            super(type, vector);
        }

        @Override public Decimal getDecimal(int row, int precision, int scale) {
            if (isNullAt(row)) {
                return null;
            }
            return Decimal.createUnsafe(Platform.getLong(null, values + 16L * row), precision, scale);
        }
    }

    static class Texts extends Flat {
        private final long offsets;

        Texts(DataType type, FieldVector vector) {
            super(type, vector);
            offsets = vector.getOffsetBuffer().memoryAddress();
        }

        @Override public UTF8String getUTF8String(int row) {
            if (isNullAt(row)) {
                return null;
            }
            int start = Platform.getInt(null, offsets + 4L * row);
            int stop = Platform.getInt(null, offsets + 4L * row + 4);
            return UTF8String.fromAddress(null, values + start, stop - start);
        }
    }
}
