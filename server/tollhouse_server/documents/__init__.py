"""Statements as documents: CSV, JSON, XLSX, HTML, PDF and FOCUS, in several languages, and how they are delivered."""
