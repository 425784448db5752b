"""What operators see: metrics (all declared in `declarations.py`), the endpoint that serves them, and the logs."""
