# syntax=docker/dockerfile:1
# Nightshift in an image: the command line, the flows, and the Prefect they run with (its server
# and worker, too), all in the versions of constraints.txt.
#
#   docker build -t nightshift:0.1.0 .
#   docker build -t nightshift:0.1.0 --build-arg EXTRAS=xgboost,lightgbm .   # more model libraries

ARG PYTHON=3.11.15-slim-bookworm

# --- build: a virtual environment with everything in it ------------------------------------------
FROM python:${PYTHON} AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/nightshift
ENV PATH=/opt/nightshift/bin:$PATH
WORKDIR /source

# The libraries first, and by themselves: a change of our code does not install them again. Their
# own tests, a sixth of the whole, stay behind.
COPY pyproject.toml constraints.txt README.md LICENSE ./
ARG EXTRAS=""
RUN mkdir -p src/nightshift \
    && touch src/nightshift/__init__.py \
    && pip install -q -c constraints.txt ".${EXTRAS:+[$EXTRAS]}" \
    && pip uninstall -q -y nightshift-batch \
    && for library in numpy pandas pyarrow scipy sklearn; do \
        find /opt/nightshift/lib/python*/site-packages/$library -type d -name tests -prune \
            -exec rm -r {} +; \
    done

COPY adapters adapters
COPY flows flows
COPY src src
RUN pip install -q -c constraints.txt --no-deps . \
    && pip check \
    && pip uninstall -q -y pip setuptools \
    && cp constraints.txt /opt/nightshift/

# --- the image ------------------------------------------------------------------------------------
FROM python:${PYTHON}

# LightGBM and scikit-learn compute in threads with it.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --home-dir /app --no-log-init nightshift \
    && mkdir -p /app/config /app/.nightshift/prefect \
    && chown -R nightshift:nightshift /app

COPY --from=build /opt/nightshift /opt/nightshift

ENV PATH=/opt/nightshift/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NIGHTSHIFT_CONFIG=/app/config/nightshift.yaml \
    PREFECT_HOME=/app/.nightshift/prefect \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    DO_NOT_TRACK=1

# By its number, so that Kubernetes can tell that it is not root.
USER 10001:10001
WORKDIR /app
CMD ["nightshift", "--help"]
