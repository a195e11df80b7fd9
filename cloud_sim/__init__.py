"""The other end of device-agent: a simulated cloud that publishes targets, collects states and plays whole fleets."""
