"""All of Prefect that is not a flow: the server, states, progress, events, logs."""
