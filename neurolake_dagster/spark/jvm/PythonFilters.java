package neurolake.spark;

import java.sql.Timestamp;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.util.ArrayList;
import java.util.List;

import org.apache.spark.sql.catalyst.util.DateTimeUtils;
import org.apache.spark.sql.sources.Filter;

import scala.Product;
import scala.collection.Iterator;

/** Which of a query's filters Python can be told: its dates are those of the years 1 to 9999. */
final class PythonFilters {
    private static final long FIRST_DAY = LocalDate.of(1, 1, 1).toEpochDay();
    private static final long LAST_DAY = LocalDate.of(9999, 12, 31).toEpochDay();
    private static final long DAY_MICROS = 86400000000L;

    private PythonFilters() {}

    static Filter[] of(Filter[] given) {
        List kept = new ArrayList();
        for (int i = 0; i < given.length; i++) {
            if (isKnown(given[i])) {
                kept.add(given[i]);
            }
        }
        return (Filter[]) kept.toArray(new Filter[0]);
    }

    /** A filter, or a value in it. */
    private static boolean isKnown(Object part) {
        if (part instanceof java.sql.Date || part instanceof LocalDate) {
            return isKnownDay(DateTimeUtils.anyToDays(part));
        }
        if (part instanceof Timestamp || part instanceof Instant) {
            return isKnownDay(Math.floorDiv(DateTimeUtils.anyToMicros(part), DAY_MICROS));
        }
        if (part instanceof LocalDateTime) {
            return isKnownDay(((LocalDateTime) part).toLocalDate().toEpochDay());
        }
        if (part instanceof Object[]) {
            return areKnown(java.util.Arrays.asList((Object[]) part).iterator());
        }
        if (part instanceof Filter) {
            Iterator parts = ((Product) part).productIterator();
            return areKnown(scala.jdk.javaapi.CollectionConverters.asJava(parts));
        }
        return true;
    }

    private static boolean isKnownDay(long day) {
        return FIRST_DAY <= day && day <= LAST_DAY;
    }

    private static boolean areKnown(java.util.Iterator parts) {
        while (parts.hasNext()) {
            if (!isKnown(parts.next())) {
                return false;
            }
        }
        return true;
    }
}
