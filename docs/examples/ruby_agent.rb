# A whole agent in Ruby, made from the .proto files alone. What it says and hears is explained in docs/protocol.md.
#
#   apt-get install ruby-grpc-tools ruby-webrick    # elsewhere: gem install grpc grpc-tools webrick
#   grpc_tools_ruby_protoc -I proto --ruby_out=gen --grpc_out=gen agentd/v1/agent.proto agentd/v1/common.proto
#
# agentd runs it with `command: [ruby, -I, gen, ruby_agent.rb]` in a pool. A task is a POST to /task on its port.

require "agentd/v1/agent_services_pb"
require "json"
require "webrick"

# What there is to do, what agentd wants, and the heartbeats between the two. All state is read and changed under @lock.
class Agent
  V1 = Agentd::V1
  RECONNECT_FIRST_S = 0.5
  RECONNECT_MAX_S = 5.0
  UNKNOWN_MAX = 3 # refusals in a row as unknown before it is believed
  ACKS_KEPT = 8
  # gRPC's own pauses grow to two minutes; those of `report` are to decide.
  CHANNEL = { "grpc.initial_reconnect_backoff_ms" => 100, "grpc.max_reconnect_backoff_ms" => 400 }.freeze

  def initialize
    @who = V1::InstanceRef.new(id: ENV.fetch("AGENTD_INSTANCE"), incarnation: ENV.fetch("AGENTD_INCARNATION"))
    @slots = Integer(ENV.fetch("AGENTD_CONCURRENCY", "1"))
    @stub = V1::AgentService::Stub.new(ENV.fetch("AGENTD_ENDPOINT"), :this_channel_is_insecure, channel_args: CHANNEL)
    @lock = Mutex.new
    @free = ConditionVariable.new # a slot is
    @due = ConditionVariable.new # a heartbeat is, before its time
    @queued = @in_flight = @completed = @seq = @news = @unknown = 0
    @acks = {} # what has become of the last directives, by id
    @drain = nil # the one of them that is a drain which is on
    @interval_s = 1.0 # until agentd has told it
    @reconnect_s = RECONNECT_FIRST_S
  end

  # Does a task when there is a slot for it. False: it is not taken, because the agent drains.
  def task
    @lock.synchronize do
      return false if @drain

      @queued += 1
      @free.wait(@lock) while @in_flight >= @slots
      @queued -= 1
      @in_flight += 1
    end
    begin
      yield
    ensure
      @lock.synchronize do
        @in_flight -= 1
        @completed += 1
        @free.signal
        tell_now if @drain && idle?
      end
    end
    true
  end

  # Reports, session after session, as long as the process runs. While agentd is away the tasks go on.
  def report
    loop do
      begin
        session
      rescue StandardError => e
        warn "no session with agentd: #{e.message}" unless e.is_a?(GRPC::Unavailable)
      end
      sleep(@reconnect_s * rand(0.5..1.0)) # spread: when agentd returns, every agent calls
      @reconnect_s = [@reconnect_s * 2, RECONNECT_MAX_S].min
    end
  end

  private

  def session
    open = true
    requests = Enumerator.new do |stream| # gRPC runs it in a thread of its own
      while open
        request, news = @lock.synchronize { [V1::SessionRequest.new(heartbeats: [heartbeat]), @news] }
        stream << request
        @lock.synchronize { @due.wait(@lock, @interval_s * rand(0.9..1.0)) if open && news == @news }
      end
    end
    # Where agentd ends the session itself, this returns with the next heartbeat, which finds no session to go to.
    @stub.session(requests) { |response| @lock.synchronize { response.replies.each { |reply| hear(reply) } } }
  ensure
    @lock.synchronize do
      open = false
      @due.broadcast
    end
  end

  def heartbeat
    @drain.stage = :STAGE_DONE if @drain && idle?
    V1::Heartbeat.new(
      instance: @who,
      seq: @seq += 1,
      load: [1.0, (@in_flight + @queued) / @slots.to_f].min,
      queue_length: @queued,
      in_flight: @in_flight,
      tasks_completed: @completed,
      acks: @acks.values # again and again, which needs no memory of what agentd has heard
    )
  end

  def hear(reply)
    return refused(reply.refusal) if reply.refusal

    @reconnect_s = RECONNECT_FIRST_S
    @unknown = 0
    @interval_s = reply.interval_s if reply.interval_s.positive?
    directive = reply.directive
    return if directive.nil? || directive.id.zero? || @acks.key?(directive.id) # a directive is followed once

    @acks[directive.id] = follow(directive)
    @acks.shift if @acks.size > ACKS_KEPT
    tell_now
  end

  def follow(directive)
    ack = V1::Acknowledgement.new(id: directive.id, stage: :STAGE_ACCEPTED)
    case directive.kind
    when :KIND_DRAIN
      ack.done_follows = true
      @drain = ack
    when :KIND_RESUME then @drain = nil
    when :KIND_CONFIGURE
      @slots = directive.concurrency if directive.has_concurrency?
      @free.broadcast
    when :KIND_SHUT_DOWN then finish
    else
      ack.stage = :STAGE_FAILED
      ack.text = "this agent does not know directives of kind #{directive.kind}"
    end
    ack
  end

  def refused(refusal)
    @unknown = refusal.reason == "UNKNOWN_INSTANCE" ? @unknown + 1 : 0
    return if refusal.reason == "NOT_STARTED" # it comes before agentd knows of it; the next one is taken

    warn "agentd refuses a heartbeat: #{refusal.message}"
    finish if refusal.reason == "SUPERSEDED" || @unknown >= UNKNOWN_MAX
  end

  # Ends as with a TERM from agentd: what was accepted is done first.
  def finish = Process.kill(:TERM, Process.pid)

  def idle? = (@in_flight + @queued).zero?

  def tell_now
    @news += 1
    @due.broadcast
  end
end

agent = Agent.new
http = WEBrick::HTTPServer.new(
  BindAddress: "127.0.0.1",
  Port: ENV.fetch("AGENTD_PORT"),
  AccessLog: [],
  Logger: WEBrick::Log.new($stderr, WEBrick::Log::WARN),
  StartCallback: lambda do
    trap("TERM") { http.shutdown }
    Thread.new { agent.report } # the first heartbeat says that the agent is ready, so the port listens by now
  end
)
http.mount_proc("/task") do |request, response|
  taken = agent.task { sleep JSON.parse(request.body).fetch("service_s") } # your work here
  response.status = taken ? 200 : 503
end
http.start # returns after a TERM, when all that was accepted is done
