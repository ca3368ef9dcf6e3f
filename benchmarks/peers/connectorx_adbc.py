"""connectorx in, ADBC out: the fast readers and writers of the pandas world, without chunks."""

import adbc_driver_postgresql.dbapi
import connectorx
import numpy as np
import pyarrow as pa
from contest import Stopwatch, predictor, task

given = task()
predict = predictor(given)
place = f"postgresql://postgres@127.0.0.1:{given.port}/postgres"  # it knows no Unix sockets

with Stopwatch():
    rows = connectorx.read_sql(place, given.select, protocol="binary")
    predicted = np.asarray(predict(rows[given.columns]), np.float64)
    scored = pa.table({"id": rows["id"].to_numpy(), "prediction": predicted})
    with adbc_driver_postgresql.dbapi.connect(given.url) as connection:
        with connection.cursor() as cursor:
            cursor.adbc_ingest(given.target, scored, mode="append")
        connection.commit()
