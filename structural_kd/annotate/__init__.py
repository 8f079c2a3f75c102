"""Bulk annotation: a stream of texts or sentences in, the same with entities or trees out, in order.

`lines` reads a stream of any size, `readers` turn its lines into `records`, `stream` sends windows of them
through the predictors, `writers` turn the answers into bytes; `partial` is an output that can be resumed.
"""
