"""Running it day after day: deployments, alerts, the doctor, metrics."""
