"""What one housekeeper reads from the database for the metrics: money by budget and department, and how the rest is."""
