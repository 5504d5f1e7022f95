-- Every request differs in a path parameter, a query value and a header.
-- With the argument "same" the first request is repeated; it is built just as often, so that the
-- client's own cost, and with it the load, is the same in both.
local n, same, first = 1000000, false, nil
init = function(args) same = args[1] == "same" end
request = function()
  n = n + 1
  if n == 10000000 then n = 1000000 end  -- all of one length
  local r = "GET /vary/" .. n .. "?page=2&q=" .. n .. " HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Vary: " .. n .. "\r\n\r\n"
  first = first or r
  return same and first or r
end
