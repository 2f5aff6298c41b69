-- What wrk sends: another user and task with each request, along one walk through all tasks (data.py, Size.stride).
-- Arguments: threads= tokens=FILE method= path= bodies=FILE walked= per_user= first_user= numbers=own|global start= length= stride=

local places = 0

function setup(thread)
   thread:set("place", places)
   places = places + 1
end

local function lines(path)
   local found = {}
   for line in io.lines(path) do
      table.insert(found, line)
   end
   return found
end

local function fill(text, user)
   return (text:gsub("{user}", tostring(user)))
end

function init(args)
   local given = {}
   for _, arg in ipairs(args) do
      local name, value = arg:match("^([%w_]+)=(.*)$")
      if name then
         given[name] = tonumber(value) or value
      end
   end
   walked, per_user, first_user = given.walked, given.per_user, given.first_user
   start, length, stride = given.start, given.length, given.stride
   numbered_globally = given.numbers == "global"
   threads, walk = given.threads, place

   local before, after = given.path:match("^(.*){id}(.*)$")
   names_task = before ~= nil
   before, after = before or given.path, after or ""
   local tokens = lines(given.tokens)
   heads, tails, endings = {}, {}, {}
   for user = first_user, #tokens do
      heads[user] = given.method .. " " .. fill(before, user)
      tails[user] = fill(after, user) .. " HTTP/1.1\r\nHost: " .. wrk.host .. "\r\nAuthorization: " .. tokens[user] .. "\r\n"
      if not names_task then
         heads[user], tails[user] = "", heads[user] .. tails[user]
      end
   end
   for turn, body in ipairs(given.bodies and lines(given.bodies) or {}) do
      endings[turn - 1] = "Content-Type: application/json\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
   end
   turns = #endings + 1
   if not endings[0] then
      endings[0], turns = "\r\n", 1
   end
end

function request()
   local cycle = math.floor(walk / length)  -- each time round, the next body: so that every change changes something
   local number = ((start + walk % length) * stride) % walked
   walk = walk + threads
   local user = first_user + math.floor(number / per_user)
   local id = number % per_user + 1
   local ending = endings[(id - 1 + cycle) % turns]
   if not names_task then
      return tails[user] .. ending
   end
   if numbered_globally then
      id = (user - 1) * per_user + id
   end
   return heads[user] .. id .. tails[user] .. ending
end

function done(summary, latency)
   local errors = summary.errors
   print(string.format(
      'result {"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "status": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d}',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
      errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
