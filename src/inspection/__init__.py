"""Looking at data before training and at runs after it; what tools/check_data.py and tools/report.py show."""
