PRAGMA application_id = 1348693095;
BEGIN TRANSACTION;
CREATE TABLE batches (
        token VARCHAR(16) NOT NULL PRIMARY KEY,
        model TEXT NOT NULL, endpoint TEXT NOT NULL, run TEXT NOT NULL, owner TEXT NOT NULL,
        state VARCHAR(8) NOT NULL, remote TEXT, requests INTEGER NOT NULL, worst_usd FLOAT NOT NULL,
        intended_at FLOAT NOT NULL, sent_at FLOAT, ended_at FLOAT, problem TEXT);
CREATE TABLE calls (
        key VARCHAR(32) NOT NULL PRIMARY KEY,
        model TEXT NOT NULL, endpoint TEXT NOT NULL, stage TEXT NOT NULL, principle TEXT NOT NULL,
        request TEXT NOT NULL,
        status VARCHAR(8) NOT NULL,
        completion TEXT, problem TEXT,
        tokens_in INTEGER, tokens_out INTEGER, tokens_cached INTEGER, cost_usd FLOAT,
        asked_at FLOAT NOT NULL, answered_at FLOAT,
        attempts INTEGER NOT NULL, run TEXT NOT NULL DEFAULT '', owner TEXT, leased_until FLOAT, batch VARCHAR(16) NOT NULL DEFAULT '');
INSERT INTO "calls" VALUES('d933f6bbaa60df73476b17b1e58b906c','openai/m','','label','kind','{"model":"openai/m","endpoint":"","messages":[{"role":"user","content":"answered"}],"max_tokens":8,"temperature":0.0,"top_p":1.0,"sample":0,"seed":0,"menu":{},"reasoning":true,"structured":false,"stage":"label","principle":"kind"}','answered','{"text":"yes","finish_reason":"stop","probabilities":{"a":0.25,"b":0.75},"served_by":"","tokens_in":7,"tokens_out":2,"tokens_cached":0,"tokens_cache_written":0}',NULL,7,2,0,0.25,1.79604871741536092758e+09,1.79604871743615674968e+09,1,'first',NULL,NULL,'');
INSERT INTO "calls" VALUES('9420e22b4babb089d29313558fd9ff3d','openai/m','','label','','{"model":"openai/m","endpoint":"","messages":[{"role":"user","content":"unpriced"}],"max_tokens":8,"temperature":0.0,"top_p":1.0,"sample":0,"seed":0,"menu":{},"reasoning":true,"structured":false,"stage":"label","principle":""}','answered','{"text":"yes","finish_reason":"stop","probabilities":{"a":0.25,"b":0.75},"served_by":"","tokens_in":7,"tokens_out":2,"tokens_cached":0,"tokens_cache_written":0}',NULL,7,2,0,NULL,1.79604871742743873595e+09,1.79604871745031404494e+09,1,'first',NULL,NULL,'');
INSERT INTO "calls" VALUES('29417c3a259f37dc205bc5994cc61eed','openai/m','','revise','','{"model":"openai/m","endpoint":"","messages":[{"role":"user","content":"failed"}],"max_tokens":8,"temperature":0.0,"top_p":1.0,"sample":0,"seed":0,"menu":{},"reasoning":true,"structured":false,"stage":"revise","principle":""}','failed',NULL,'said',NULL,NULL,NULL,NULL,1.796048717431622982e+09,1.79604871745135927195e+09,1,'first',NULL,NULL,'');
INSERT INTO "calls" VALUES('c237046c54d8e6678777c2fefae9a7a9','openai/m','','','','{"model":"openai/m","endpoint":"","messages":[{"role":"user","content":"in flight"}],"max_tokens":8,"temperature":0.0,"top_p":1.0,"sample":0,"seed":0,"menu":{},"reasoning":true,"structured":false,"stage":"","principle":""}','intent',NULL,NULL,NULL,NULL,NULL,NULL,1.7960487174350583553e+09,NULL,1,'first','b226ba5c3c1e:9525:1751719:0c26f0d5',1.79604877743505835538e+09,'');
CREATE TABLE charges (
        key VARCHAR(32) NOT NULL, run TEXT NOT NULL,
        model TEXT NOT NULL, stage TEXT NOT NULL, principle TEXT NOT NULL,
        outcome VARCHAR(8) NOT NULL, ended_at FLOAT NOT NULL,
        tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, tokens_cached INTEGER NOT NULL,
        cost_usd FLOAT, batch VARCHAR(16) NOT NULL DEFAULT '');
INSERT INTO "charges" VALUES('d933f6bbaa60df73476b17b1e58b906c','first','openai/m','label','kind','answered',1.79604871743615674968e+09,7,2,0,0.25,'');
INSERT INTO "charges" VALUES('9420e22b4babb089d29313558fd9ff3d','first','openai/m','label','','answered',1.79604871745031404494e+09,7,2,0,NULL,'');
INSERT INTO "charges" VALUES('29417c3a259f37dc205bc5994cc61eed','first','openai/m','revise','','failed',1.79604871745135927195e+09,0,0,0,NULL,'');
CREATE TABLE ledger_version (version INTEGER NOT NULL);
INSERT INTO "ledger_version" VALUES(3);
CREATE INDEX calls_in_flight ON calls (owner) WHERE status = 'intent';
CREATE INDEX calls_in_batch ON calls (batch) WHERE batch <> '';
COMMIT;