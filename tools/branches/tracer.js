// Which way every conditional jump went, by the frame that it is in: 1 false, 2 true, 3 both.
{
  frames: [{ create: false, input: "", jumps: {} }],
  open: [0],
  step: function (log) {
    if (log.op.toNumber() !== 0x57) return;
    var frame = this.frames[this.open[this.open.length - 1]];
    if (frame.address === undefined) frame.address = toHex(log.contract.getAddress());
    var position = log.getPC();
    frame.jumps[position] = (frame.jumps[position] || 0) | (log.stack.peek(1) == 0 ? 1 : 2);
  },
  enter: function (call) {
    var create = call.getType().indexOf("CREATE") === 0;
    this.open.push(this.frames.length);
    this.frames.push({ create: create, input: create ? toHex(call.getInput()) : "", jumps: {} });
  },
  exit: function () {
    this.open.pop();
  },
  fault: function () {},
  result: function (context) {
    if (context.type === "CREATE") {
      this.frames[0].create = true;
      this.frames[0].input = toHex(context.input);
    }
    return this.frames;
  },
}
