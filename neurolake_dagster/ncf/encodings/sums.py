"""Running sums of small lengths: offsets from one-byte lengths, several at a time.

numpy's ``cumsum`` waits for each addition: 2 ns per value. Here one multiplication adds up four
or eight neighbours in the bytes of a word, and only the words' totals are summed one by one.
"""

import numpy as np

from neurolake_dagster.ncf.checks import NDArray


def write_sums(lengths: NDArray, out: NDArray) -> None:
    """Write the running sums of unsigned ``lengths`` to ``out``, which has as many items."""
    if lengths.dtype != np.uint8 or len(lengths) < 64:
        np.cumsum(lengths, dtype=out.dtype, out=out)
        return
    highest = int(lengths.max())
    per = 8 if highest < 32 else 4 if highest < 64 else 2 if highest < 128 else 1
    whole = len(lengths) // per * per
    if per == 1:
        np.cumsum(lengths, dtype=out.dtype, out=out)
        return
    ones = np.array([1] * per, np.uint8).view(f"<u{per}")[0]
    sums = np.ascontiguousarray(lengths[:whole]).view(f"<u{per}") * ones
    add_group_sums(sums, per, out[:whole])
    for at in range(whole, len(lengths)):
        out[at] = (out[at - 1] if at else 0) + lengths[at]


def add_group_sums(sums: NDArray, per: int, out: NDArray) -> None:
    """Write running sums of groups whose words already hold the sums within each group.

    Parameters
    ----------
    sums
        Little-endian words of ``per`` bytes; byte ``i`` is the sum of the group's first
        ``i + 1`` lengths.
    out
        ``per`` items for each word.
    """
    inner = sums.view(np.uint8).reshape(-1, per)
    ends = np.cumsum(inner[:, -1], dtype=out.dtype)
    starts = np.empty_like(ends)
    starts[:1] = 0
    starts[1:] = ends[:-1]
    np.add(inner.ravel(), np.repeat(starts, per), out=out)
