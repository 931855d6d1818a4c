/** The engine as the control plane knows it: commands with answers, events. The real one is EngineClient; tests give another. */
import type {
  EngineAnswer,
  EngineArguments,
  EngineCommandName,
  EngineEventName,
  EngineEvents,
  EngineOptions,
  EngineReady,
} from '../engine/commands.js'

export interface Engine {
  call<Name extends EngineCommandName>(name: Name, commandArguments: EngineArguments<Name>): Promise<EngineAnswer<Name>>
  on<Name extends EngineEventName>(name: Name, listener: (body: EngineEvents[Name]) => void): unknown
  /** Resolves when the engine's thread has ended, for whatever reason. */
  readonly ended: Promise<void>
}

export interface StartedEngine {
  readonly engine: Engine
  readonly ready: EngineReady
}

export type StartEngine = (options: EngineOptions) => Promise<StartedEngine>
