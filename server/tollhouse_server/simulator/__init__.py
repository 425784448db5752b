"""The Gemini simulator: Gemini's REST protocol with deterministic answers, fault plans and a durable call log."""
