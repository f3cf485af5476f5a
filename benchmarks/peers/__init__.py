"""The peers' side: BullMQ (Node) and dramatiq (Python), each at its best documented settings."""
