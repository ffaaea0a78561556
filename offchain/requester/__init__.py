"""The requester's side of a job: validate and commit to an input, request, seal, follow, open the result."""
