"""The models of the benchmark: trained once, kept as files for the peers, registered for us."""

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd

MODELS = {
    "linear": "floats",
    "boosting": "floats",
    "forest": "floats",
    "xgboost": "floats",
    "network": "floats",
    "pipeline": "mixed",
}
"""Each model and the table that it scores."""

TOLERANCE = {"network": 1e-4, "xgboost": 1e-6}
"""How far sums of predictions may differ, relatively; sums of float32 move by their order."""


def train(name: str, sample: pd.DataFrame, folder: Path) -> None:
    """Fit the model, write it as its library does, and register it in the project."""
    from nightshift.flows.config.resources import open_store
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.register import register

    numbers = sample.select_dtypes("float").fillna(0).to_numpy()
    target = numbers[:, :5].sum(axis=1) + numbers[:, 5] * numbers[:, 6]
    model, adapter = _fitted(name, sample, target)
    if name == "network":
        import torch

        torch.save(model, folder / f"{name}.pt")
        sample = sample.astype("float32")
    else:
        joblib.dump(model, folder / f"{name}.joblib")
    version = register(name, adapter, sample).version
    open_store(load_settings()).promote(name, version)


def _fitted(name: str, sample: pd.DataFrame, target: "np.ndarray") -> tuple[Any, Any]:
    from nightshift.adapters.libraries.sklearn import SklearnModel

    match name:
        case "linear":
            from sklearn.linear_model import LinearRegression

            model = LinearRegression().fit(sample, target)
        case "boosting":
            from sklearn.ensemble import HistGradientBoostingRegressor

            model = HistGradientBoostingRegressor(random_state=0).fit(sample, target)
        case "forest":
            from sklearn.ensemble import RandomForestRegressor

            model = RandomForestRegressor(50, max_depth=10, n_jobs=-1, random_state=0)
            model.fit(sample, target)
        case "pipeline":
            model = _pipeline(sample).fit(sample, target)
        case "xgboost":
            import xgboost

            from nightshift.adapters.libraries.xgboost import XGBoostModel

            boosted = xgboost.XGBRegressor(n_estimators=100, random_state=0).fit(sample, target)
            return boosted, XGBoostModel(boosted)
        case "network":
            return _network(sample, target)
    return model, SklearnModel(model)


def _pipeline(sample: pd.DataFrame) -> Any:
    """Imputing, scaling and encoders before a linear model."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import (
        FunctionTransformer,
        OneHotEncoder,
        OrdinalEncoder,
        StandardScaler,
    )

    def named(prefix: str) -> list[str]:
        return [name for name in sample.columns if name.rstrip("0123456789") == prefix]

    seconds = FunctionTransformer(pd.DataFrame.astype, kw_args={"dtype": "datetime64[s]"})
    numbers = FunctionTransformer(pd.DataFrame.astype, kw_args={"dtype": "int64"})
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    encoded = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), named("f") + named("n")),
            ("few", OneHotEncoder(handle_unknown="ignore"), named("few")),
            ("many", make_pipeline(ordinal, StandardScaler()), named("many")),
            ("times", make_pipeline(seconds, numbers, StandardScaler()), named("at")),
            ("flags", "passthrough", named("flag")),
        ]
    )
    return make_pipeline(encoded, Ridge())


def _network(sample: pd.DataFrame, target: "np.ndarray") -> tuple[Any, Any]:
    import torch

    from nightshift.adapters.libraries.pytorch import PyTorchModel

    torch.manual_seed(0)
    layers = torch.nn
    net = layers.Sequential(
        layers.Linear(sample.shape[1], 64), layers.ReLU(),
        layers.Linear(64, 32), layers.ReLU(), layers.Linear(32, 1),
    )  # fmt: skip
    inputs = torch.from_numpy(sample.to_numpy("float32", copy=True))
    wanted = torch.from_numpy(target.astype("float32"))[:, None]
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(100):
        optimizer.zero_grad()
        layers.functional.mse_loss(net(inputs), wanted).backward()
        optimizer.step()
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    exported = torch.export.export(net.eval(), (inputs[:8],), dynamic_shapes=dynamic)
    return net, PyTorchModel(exported)
