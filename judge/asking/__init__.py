"""Concurrency, rate limits, retries, budget, prices, plan, batches."""
