"""The children of nurseries, of a handler's and of a client's alike: what is known of them, and how they come to Redis.

- `kin`: the children of one nursery.
- `turns`: work for each nursery or child in turn, whose failures hold up no other.
- `carrier`: brings children to Redis and hears of their ends, for all nurseries of a process.
"""
