"""The HTTP API, the metrics page and the dashboard: a thin reading of the runtime's views, on loopback only."""
