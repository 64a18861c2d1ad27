# Loaded by Ruby as `did_you_mean` when it starts, in a sandbox that is made ahead: waits for its job. What it leaves is
# its name in $LOADED_FEATURES.
lambda do
  $LOAD_PATH.delete(__dir__)
  rest = ENV.delete('RUBYLIB').split(':', 2)[1]
  ENV['RUBYLIB'] = rest if rest
  fd = ENV.delete('FUMEHOOD_BOOT').to_i
  preload = ENV.delete('FUMEHOOD_PRELOAD').to_s.split('|', 2)[1].to_s.split
  require 'did_you_mean'
  preload.each { |name| require name }
  io = IO.for_fd(fd, 'r+b')
  io.syswrite("\n")
  said = io.read
  io.close
  exit!(1) if said.empty?
  words = said.split("\0", -1)[0...-1].map { |word| word.force_encoding(Encoding.default_external) }
  count = words.shift.to_i
  ARGV.replace(words.first(count))
  words.drop(count).each do |variable|
    name, value = variable.split('=', 2)
    ENV[name] = value
  end
end.call
