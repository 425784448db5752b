"""What operators see: metrics (all declared in `declarations`), the endpoint that serves them, and the logs."""
