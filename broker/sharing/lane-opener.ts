/**
 * Opens lanes. The broker with the lower node id opens, the other asks it to (lane-want), so that both never make the same lane:
 *
 *   opener ── lane-open (parameters, address) ──►  makes its end, ready to receive
 *          ◄─ lane-opened (agreed, address) ─────
 *          ═══ probe and answer, on the lane ═══   both ends up
 *          ── lane-ready ──►
 */
import { isErrorCode } from '../../protocol/error-codes.js'
import { SharedVerbsError } from '../../protocol/errors.js'
import type { LinkMessageBody } from '../../protocol/link.js'
import type { Clock } from '../control/clock.js'
import { toFailure } from '../control/failure.js'
import { within } from '../control/within.js'
import type { Link, Peer } from '../peers/peer.js'
import type { Lane } from './lane.js'
import type { LaneKeeper } from './lane-keeper.js'
import type { LaneMaker } from './lane-maker.js'
import { agreeParameters, findParameterMismatch, sameParameters } from './lane-parameters.js'
import type { LaneSet } from './lane-set.js'

export interface LaneOpenerOptions {
  readonly clock: Clock
  readonly maker: LaneMaker
  readonly keeper: LaneKeeper
}

type LaneOpen = LinkMessageBody<'lane-open'>

/** For each step of the opening that waits for the other side. */
const STEP_TIMEOUT_MS = 5000
const MESSAGE_LENGTH = 500

export class LaneOpener {
  readonly #options: LaneOpenerOptions

  constructor(options: LaneOpenerOptions) {
    this.#options = options
  }

  /** The opening side: every lane that is missing. Settles when each is up or has failed; fails if none came up. */
  async openMissing(set: LaneSet, link: Link): Promise<void> {
    const indexes = Array.from({ length: link.lanes }, (_, index) => index).filter((index) => !set.lanes.has(index))
    const outcomes = await Promise.allSettled(indexes.map((index) => this.#open(set, link, index)))
    const failed = outcomes.find((outcome) => outcome.status === 'rejected')
    if (failed && set.up.length === 0) throw failed.reason
  }

  /** The other side: a lane is offered. */
  async answer(set: LaneSet, link: Link, body: LaneOpen): Promise<void> {
    const { maker, keeper } = this.#options
    let lane: Lane | undefined
    set.answering++
    try {
      const parameters = this.#agree(set, link, body)
      const old = set.lanes.get(body.lane)
      if (old) await keeper.laneLost(old, 'the peer opened it anew', false)
      await set.leaving.get(body.lane)
      if (set.peer.link !== link || set.closed) throw lost(set)
      lane = maker.begin(set, body.lane, body.incarnation)
      const address = await maker.create(lane, parameters)
      // Ready to receive is asked for before the peer hears where to send.
      const connected = maker.connect(lane, body.address, parameters, { initiator: false, timeoutMs: STEP_TIMEOUT_MS })
      connected.catch(() => undefined)
      set.peer.send('lane-opened', { ...lane.name, parameters, address })
      await connected
      keeper.laneUp(lane)
    } catch (error) {
      if (lane) await maker.destroy(lane, 'it could not be opened')
      this.#refuse(set.peer, body, error)
      keeper.setFailed(set, error)
    } finally {
      set.answering--
      keeper.pursue(set)
    }
  }

  async #open(set: LaneSet, link: Link, index: number): Promise<void> {
    const { maker, keeper, clock } = this.#options
    await set.leaving.get(index)
    if (set.peer.link !== link || set.closed) throw lost(set)
    const lane = maker.begin(set, index)
    let told = false
    try {
      const mine = maker.parameters(set.trafficClass)
      const address = await maker.create(lane, mine)
      if (set.peer.link !== link) throw lost(set)
      told = true
      set.peer.send('lane-open', { ...lane.name, lanes: link.lanes, parameters: mine, address })
      const opened = await within(lane.opened.promise, STEP_TIMEOUT_MS, clock, `opening lane ${index}`)
      const parameters = agreeParameters(mine, opened.parameters)
      if (!sameParameters(parameters, opened.parameters)) throw disagreement(set)
      await maker.connect(lane, opened.address, parameters, { initiator: true, timeoutMs: STEP_TIMEOUT_MS })
      set.peer.send('lane-ready', lane.name)
      keeper.laneUp(lane)
    } catch (error) {
      const failure = toFailure(error)
      if (told) set.peer.send('lane-failed', { ...lane.name, reason: failure.message.slice(0, 200) })
      else if (set.peer.link === link) this.#refuse(set.peer, { ...lane.name }, error)
      await maker.destroy(lane, failure.message)
      throw failure
    }
  }

  /** What both use, or a refusal naming the field and both values. */
  #agree(set: LaneSet, link: Link, body: LaneOpen): LaneOpen['parameters'] {
    if (body.lanes !== link.lanes || body.lane >= link.lanes) {
      throw new SharedVerbsError('peer-refused', `lane ${body.lane} of ${body.lanes}: ${link.lanes} lanes were agreed`)
    }
    const mine = this.#options.maker.parameters(set.trafficClass)
    const mismatch = findParameterMismatch(mine, body.parameters)
    if (!mismatch) return agreeParameters(mine, body.parameters)
    const { field, mine: here, yours: there } = mismatch
    throw new SharedVerbsError(
      'peer-refused',
      `lane refused: ${field} is ${here} on node ${set.peer.link?.handshake.mine.node} and ${there} on node ${set.peer.node}`,
      { field, mine: here, yours: there },
    )
  }

  #refuse(peer: Peer, name: Lane['name'], error: unknown): void {
    const { code, message } = toFailure(error)
    const { job, userId, trafficClass, lane, incarnation } = name
    const body = { job, userId, trafficClass, lane, incarnation }
    peer.send('lane-refused', { ...body, code, message: message.slice(0, MESSAGE_LENGTH) })
  }
}

/** A refusal of the peer as an error of this side. */
export function laneRefusal(peer: Peer, body: LinkMessageBody<'lane-refused'>): SharedVerbsError {
  const code = isErrorCode(body.code) ? body.code : 'peer-refused'
  const { trafficClass, lane } = body
  return new SharedVerbsError(code, `node ${peer.node}: ${body.message}`, { node: peer.node, trafficClass, lane })
}

const lost = (set: LaneSet): SharedVerbsError =>
  new SharedVerbsError('path-lost', `the link to node ${set.peer.node} was lost while lanes were opened`)

const disagreement = (set: LaneSet): SharedVerbsError =>
  new SharedVerbsError('protocol-violation', `node ${set.peer.node} agreed to other lane parameters than were offered`)
