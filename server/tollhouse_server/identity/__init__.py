"""Who is calling: API keys, the principals behind them, and the directory that answers without asking twice."""
