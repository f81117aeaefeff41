"""`htdag conformance errors`: each code of the catalogue is produced once, and judged.

Where a code is produced: `running`, the instance that runs; `scratch`, an instance that is thrown away; `broker`, a
broker that is short of something; `here`, this process. `answers` brings them together.
"""
