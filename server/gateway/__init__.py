"""The gateway: what faces clients in front of tritonserver, so that no request reaches Triton unread.

::

    limits        every bound, each with its reason
    refusal       why a request is not passed on: tag, sentence, status
    description   a request and a model as both protocols see them
    parameters    the typed table of the parameters that each ensemble takes
    outcome       by which outcomes requests are counted, and who has to do something about each
    checks        pure functions on a description: what is refused, and in which words
    http_body     HTTP bodies <-> descriptions;  grpc_message: the same for gRPC
    wire          a look at gRPC's messages before they are parsed
    http_server, grpc_server    the two public endpoints
    upstream      the connections to Triton, and whether it serves
    admission     how many requests and bytes are inside at the same time
    process       the gateway as a child process

`python -m server.gateway --help` lists the options.
"""
