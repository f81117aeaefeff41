-- Builds the world of one script and returns the function that runs it. Executed first in every fresh runtime;
-- afterwards nothing of the real globals can be reached. `refused` maps a name to true: touching it is a violation.
local refused, refused_in_string, refused_in_math, rep_bytes_max, instructions_per_look = ...

local load, pcall, error, type, rawget, setmetatable, next = load, pcall, error, type, rawget, setmetatable, next
local select, create, resume, close = select, coroutine.create, coroutine.resume, coroutine.close
local sethook, clock, unpack, rep = debug.sethook, os.clock, table.unpack, string.rep
local tostring, tonumber = tostring, tonumber

local G = _G
math.randomseed(0) -- chance is an input: the same script and context give the same numbers

-- Once set, nothing brings the script back: pcall raises it again, and it is the outcome of the call.
local stopped_code, stopped_message

local function stop(code, message, level)
  if not stopped_code then
    stopped_code, stopped_message = code, message
  end
  error(message, level + 1)
end

local function guarded(source, label, forbidden)
  local copy = {}
  for name, value in next, source do
    if not forbidden[name] then
      copy[name] = value
    end
  end
  local function missing(_, name)
    if forbidden[name] then
      stop("lua_restricted", "`" .. label .. name .. "` is not in the sandbox", 2)
    end
    return nil
  end
  return setmetatable(copy, { __index = missing, __metatable = false })
end

-- string.rep("", 1e18) would run for ever inside one C call, where no hook looks. The tail call lets Lua name the
-- script's own line when an argument is wrong.
local function bounded_rep(text, times, separator)
  local piece = #tostring(text) + #tostring(separator or "")
  local count = tonumber(times)
  if count and (piece == 0 or count <= 0) then
    return rep(text, 0)
  end
  if count and count > rep_bytes_max // piece then
    stop("lua_memory", "string.rep builds more than " .. rep_bytes_max .. " bytes", 2)
  end
  return rep(text, times, separator)
end

local function settle(ok, ...)
  if stopped_code then
    error(not ok and (...) or stopped_message, 0)
  end
  return ok, ...
end

local offered = {}
for _, name in ipairs({
  "assert", "error", "getmetatable", "ipairs", "next", "pairs", "rawequal", "rawget", "rawlen", "rawset", "select",
  "tonumber", "tostring", "type", "utf8", "_VERSION",
}) do
  offered[name] = G[name]
end
offered.table = {}
for name, value in next, table do
  offered.table[name] = value
end
offered.pcall = function(f, ...)
  return settle(pcall(f, ...))
end
-- The handler is called when the call is over, not inside of it: there no hook would look.
offered.xpcall = function(f, handler, ...)
  local function judged(ok, ...)
    if ok or stopped_code then
      return settle(ok, ...)
    end
    return false, select(2, settle(pcall(handler, ...)))
  end
  return judged(pcall(f, ...))
end
-- Lua would call a finalizer when it collects: after the script's end, where nobody bounds it.
offered.setmetatable = function(object, metatable)
  if type(metatable) == "table" and rawget(metatable, "__gc") ~= nil then
    stop("lua_restricted", "`__gc` is not in the sandbox", 2)
  end
  return setmetatable(object, metatable)
end
offered.print, offered.warn = function() end, function() end -- nobody listens; the pipe belongs to the protocol
offered.string = guarded(string, "string.", refused_in_string)
offered.string.rep = bounded_rep
offered.math = guarded(math, "math.", refused_in_math)

-- A hook watches one coroutine: each gets its own, from its first instruction on. What goes wrong in one is caught by
-- whoever resumes it, as pcall does.
local look

local function watched(f)
  local made = create(f)
  sethook(made, look, "", instructions_per_look)
  return made
end

local function or_raise(made, ok, ...)
  if not ok then
    close(made)
    error((...), 0)
  end
  return ...
end

offered.coroutine = {
  create = watched,
  resume = function(made, ...)
    return settle(resume(made, ...))
  end,
  wrap = function(f)
    local made = watched(f)
    return function(...)
      return or_raise(made, settle(resume(made, ...)))
    end
  end,
  close = function(made)
    return settle(close(made))
  end,
  isyieldable = coroutine.isyieldable,
  running = coroutine.running,
  status = coroutine.status,
  yield = coroutine.yield,
}

local env = guarded(offered, "", refused)
env._G = env
local strings = getmetatable("")
strings.__index = env.string
strings.__metatable = false

local names = {}
for name in next, G do
  names[#names + 1] = name
end
for _, name in ipairs(names) do
  G[name] = nil
end

local function describe(value)
  if type(value) == "table" then
    value = rawget(value, "message")
  end
  if type(value) == "number" then
    return value .. ""
  end
  return type(value) == "string" and value or "the error object holds no text"
end

-- Tables that came as empty objects. Lua does not tell an empty object from an empty list; these go back as they came.
local objects = setmetatable({}, { __mode = "k" })

local function object()
  local made = {}
  objects[made] = true
  return made
end

local function is_object(value)
  return objects[value] == true
end

local function compile(source)
  return load(source, "=strategy", "t", env)
end

local function run(source, context, argv, argc, cpu_s)
  local chunk, why = compile(source)
  if not chunk then
    return "lua_syntax", why
  end
  env.context, env.argv = context == nil and {} or context, argv
  local ends = clock() + cpu_s
  look = function()
    if stopped_code then
      error(stopped_message, 0) -- whatever caught it, a handler or a coroutine, does not go on
    end
    if clock() > ends then
      stop("lua_timeout", "the script ran past its deadline", 2)
    end
  end
  sethook(look, "", instructions_per_look)
  local ok, value = pcall(function()
    local returned = chunk()
    local main = rawget(env, "main")
    if type(main) == "function" then
      return (main(unpack(argv, 1, argc)))
    end
    return returned
  end)
  sethook()
  if stopped_code then
    return stopped_code, type(value) == "string" and value or stopped_message
  end
  if ok then
    return "ok", value
  end
  return "lua_error", describe(value)
end

return compile, run, object, is_object
