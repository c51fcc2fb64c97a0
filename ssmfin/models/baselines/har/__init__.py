"""Owns the HAR family: heterogeneous autoregressions of realized variance, one class a member.

`family.py` says what they share (estimation, pooling, windows, logs), `members.py` what sets each apart: its
regressors. A new member is a class there and a line in `ssmfin.models.registry`.
"""
