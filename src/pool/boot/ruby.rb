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
  # What is not ours is not closed when nobody has these any more.
  IO.for_fd(fd.zero? ? 1 : fd, 'wb', autoclose: false).syswrite("\n")
  io = IO.for_fd(fd, 'rb', autoclose: !fd.zero?)
  read = lambda do |length|
    said = String.new
    said << io.sysread(length - said.bytesize) while said.bytesize < length
    said
  rescue EOFError
    exit!(1)
  end
  words = read.call(read.call(10).to_i).split("\0", -1)[0...-1]
  io.close unless fd.zero?
  words.map! { |word| word.force_encoding(Encoding.default_external) }
  count = words.shift(2).first.to_i
  ARGV.replace(words.first(count))
  words.drop(count).each do |variable|
    name, value = variable.split('=', 2)
    ENV[name] = value
  end
end.call
