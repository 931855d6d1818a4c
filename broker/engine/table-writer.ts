/** Copies what inspection shows of lanes and the device into the node file now and then; the data path only counts. */
import { counterIndex, laneStateNames, nodeFileGeometry, sharedQueuePairRow } from '../../protocol/node-file.js'
import type { Engine } from './engine.js'
import type { Lane } from './lane.js'

const stateNumber: Record<Lane['state'], number> = {
  created: laneStateNames.indexOf('opening'),
  opening: laneStateNames.indexOf('opening'),
  up: laneStateNames.indexOf('up'),
  closing: laneStateNames.indexOf('closing'),
  failed: laneStateNames.indexOf('failed'),
}

export class TableWriter {
  readonly #engine: Engine

  constructor(engine: Engine) {
    this.#engine = engine
  }

  write(): void {
    const engine = this.#engine
    const table = nodeFileGeometry.sections.sharedQueuePairs
    let framesSent = 0
    let framesReceived = 0
    for (const lane of engine.lanes) {
      if (!lane) continue
      framesSent += lane.framesSent
      framesReceived += lane.framesReceived
      sharedQueuePairRow.write(engine.nodeFile.memory, table.offset + lane.index * table.rowByteLength, {
        state: stateNumber[lane.state],
        framesSent: lane.framesSent,
        framesReceived: lane.framesReceived,
        bytesSent: lane.bytesSent,
        bytesReceived: lane.bytesReceived,
        postedBytes: lane.bulkPostedByteLength,
        credit: Math.max(0, lane.credit),
        bounceBuffers: lane.bounceCount,
        queuePairs: lane.flows.size,
      })
    }
    const { counters } = engine
    const device = engine.device.counters
    counters[counterIndex['frames-sent']] = framesSent
    counters[counterIndex['frames-received']] = framesReceived
    counters[counterIndex['provider-receiver-not-ready']] = device.receiverNotReady
    counters[counterIndex['provider-system-calls']] = device.systemCalls
    counters[counterIndex['provider-messages']] = device.messagesSent
    counters[counterIndex['provider-bytes-sent']] = device.bytesSent
    counters[counterIndex['provider-bytes-received']] = device.bytesReceived
  }
}
