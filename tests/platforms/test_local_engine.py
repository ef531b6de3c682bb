"""DuckDB as the embedded platform sets it up."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.platforms import local_engine as engine


@pytest.mark.parametrize("values", [[math.nan, 0.5, None, -1.0], [0.5, 0.5, math.nan]])
def test_what_is_not_a_number_does_not_pass_as_finite(tmp_path: Path, values: list[float | None]) -> None:
    """The statistics of a Parquet file leave NaN out; who believes them finds every value in their range."""
    file = tmp_path / "data.parquet"
    pq.write_table(pa.table({"x": pa.array(values, pa.float64())}), file)
    with engine.connected() as connection:
        finite = connection.execute(f"SELECT x FROM {engine.parquet(str(file))} WHERE abs(x) <= 3.4e38").fetchall()
    assert [x for (x,) in finite] == [x for x in values if x is not None and not math.isnan(x)]
