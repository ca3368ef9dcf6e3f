"""PySpark: JDBC in, a pandas UDF, JDBC out, with the options that its guides recommend."""

import os
import sys
from pathlib import Path

from contest import Stopwatch, predictor, task
from pyspark.sql import SparkSession
from pyspark.sql.functions import pandas_udf, struct

given = task()
place = str(Path(__file__).resolve().parent)
os.environ.update(PYTHONPATH=place, PYSPARK_PYTHON=sys.executable)  # so they find `contest`
spark = (
    SparkSession.builder.master("local[*]")
    .config("spark.jars", os.environ["JDBC_JAR"])
    .config("spark.driver.memory", "2g")
    .config("spark.ui.enabled", "false")
    .config("spark.driver.host", "127.0.0.1")
    .config("spark.sql.execution.arrow.pyspark.enabled", "true")
    .config("spark.sql.session.timeZone", "UTC")
    .getOrCreate()
)
spark.sparkContext.setLogLevel("ERROR")
loaded = []


@pandas_udf("double")
def score(features):
    if not loaded:
        loaded.append(predictor(given))
    import pandas as pd

    return pd.Series(loaded[0](features[given.columns]))


url = f"jdbc:postgresql://127.0.0.1:{given.port}/postgres?reWriteBatchedInserts=true"
login = {"user": "postgres", "driver": "org.postgresql.Driver"}
with Stopwatch():
    rows = (
        spark.read.format("jdbc")
        .options(url=url, dbtable=f"({given.select}) source", fetchsize=10_000, **login)
        .options(partitionColumn="id", lowerBound=1, upperBound=given.rows, numPartitions=8)
        .load()
    )
    scored = rows.select("id", score(struct(*given.columns)).alias("prediction"))
    scored.write.jdbc(url, given.target, "append", {**login, "batchsize": "10000"})
spark.stop()
