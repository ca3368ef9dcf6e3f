"""MLflow: the model as a pyfunc, over chunks of pandas."""

import tempfile
import warnings
from importlib import import_module
from pathlib import Path

import pandas as pd
import sqlalchemy as sa
from contest import CHUNK, Stopwatch, load_model, task

warnings.simplefilter("ignore")
given = task()
flavors = {"xgboost": "mlflow.xgboost", "network": "mlflow.pytorch"}
flavor = import_module(flavors.get(given.model, "mlflow.sklearn"))
engine = sa.create_engine(given.url.replace("postgresql:", "postgresql+psycopg:"))

with tempfile.TemporaryDirectory() as folder:
    saved = str(Path(folder) / "model")
    options = {"pip_requirements": []}
    if flavor.__name__ != "mlflow.xgboost":
        options["serialization_format"] = "pickle" if given.model == "network" else "cloudpickle"
    flavor.save_model(load_model(given), saved, **options)
    model = import_module("mlflow.pyfunc").load_model(saved)

numbers = "float32" if given.model == "network" else None
with Stopwatch(), engine.connect().execution_options(stream_results=True) as reading:
    for chunk in pd.read_sql(sa.text(given.select), reading, chunksize=CHUNK):
        features = chunk[given.columns]
        predicted = model.predict(features.astype(numbers) if numbers else features)
        if isinstance(predicted, pd.DataFrame):
            predicted = predicted.iloc[:, 0].to_numpy()
        scored = pd.DataFrame({"id": chunk["id"], "prediction": predicted})
        scored.to_sql(given.target, engine, if_exists="append", index=False)
