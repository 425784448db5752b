"""Which target a call gets, and when: breakers, buckets of accounts, the queue and its fair shares."""
