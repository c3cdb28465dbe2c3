"""Connections to a server: gRPC and HTTP, blocking and asyncio."""
