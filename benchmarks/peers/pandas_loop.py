"""The loop that people write: read_sql(chunksize), predict, to_sql."""

import pandas as pd
import sqlalchemy as sa
from contest import CHUNK, Stopwatch, predictor, task

given = task()
predict = predictor(given)
engine = sa.create_engine(given.url.replace("postgresql:", "postgresql+psycopg:"))

with Stopwatch(), engine.connect().execution_options(stream_results=True) as reading:
    for chunk in pd.read_sql(sa.text(given.select), reading, chunksize=CHUNK):
        scored = pd.DataFrame({"id": chunk["id"], "prediction": predict(chunk[given.columns])})
        scored.to_sql(given.target, engine, if_exists="append", index=False)
