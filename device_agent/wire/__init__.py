"""The wire: topic names, bytes to models and back, the DSSE envelope. The only place that knows JSON and topics."""
