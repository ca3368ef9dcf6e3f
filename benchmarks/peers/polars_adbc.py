"""polars with ADBC, in and out, batch by batch."""

import adbc_driver_postgresql.dbapi
import numpy as np
import polars as pl
from contest import Stopwatch, predictor, task

given = task()
predict = predictor(given)

with (
    Stopwatch(),
    adbc_driver_postgresql.dbapi.connect(given.url) as reading,
    adbc_driver_postgresql.dbapi.connect(given.url) as writing,
):
    for rows in pl.read_database(given.select, reading, iter_batches=True):
        features = rows.select(given.columns).to_pandas()
        predicted = np.asarray(predict(features), np.float64)
        scored = pl.DataFrame({"id": rows["id"], "prediction": predicted})
        scored.write_database(given.target, writing, if_table_exists="append", engine="adbc")
    writing.commit()
