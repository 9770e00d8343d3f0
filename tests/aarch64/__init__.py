"""The CPU kernels and the 310 application built for aarch64, as the hosts of Ascend servers are, under emulation."""
