-- What wrk is told to ask, and what it leaves of a run: a row of the article's CSV (config,size,requests,mean,stdev,p50,
-- p90,p99; microseconds), and one JSON object for the runner. The environment says what and where:
--   TLSDYNO_CONFIG  the first field of the row      TLSDYNO_ROW, TLSDYNO_RESULT  the two files
--   TLSDYNO_BODY    bytes to post; 0: a GET
local body_bytes = tonumber(os.getenv("TLSDYNO_BODY"))

if body_bytes > 0 then
   wrk.method = "POST"
   wrk.body   = string.rep("a", body_bytes)
end

local function write(name, text)
   local file = assert(io.open(os.getenv(name), "w"))
   assert(file:write(text, "\n"))
   assert(file:close())
end

done = function(summary, latency)
   local errors = summary.errors
   local p = function(percent) return latency:percentile(percent) end
   write("TLSDYNO_ROW", string.format("%s,%d,%d,%.2f,%.2f,%d,%d,%d", os.getenv("TLSDYNO_CONFIG"), body_bytes,
         summary.requests, latency.mean, latency.stdev, p(50), p(90), p(99)))
   write("TLSDYNO_RESULT", string.format(
         '{"duration_us": %d, "requests": %d, "bytes": %.0f, ' ..
         '"errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}, ' ..
         '"latency_us": {"count": %d, "min": %d, "mean": %.2f, "stdev": %.2f, "p50": %d, "p90": %d, "p95": %d, ' ..
         '"p99": %d, "p999": %d, "max": %d}}',
         summary.duration, summary.requests, summary.bytes, errors.connect, errors.read, errors.write, errors.status,
         errors.timeout, summary.requests, latency.min, latency.mean, latency.stdev, p(50), p(90), p(95), p(99),
         p(99.9), latency.max))
end
