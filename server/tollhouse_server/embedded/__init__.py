"""PostgreSQL, OpenBao and the Gemini simulator as child processes, for laptops and tests."""
