PRAGMA application_id = 1348693095;
BEGIN TRANSACTION;
CREATE TABLE calls (
        key VARCHAR(32) NOT NULL PRIMARY KEY,
        model TEXT NOT NULL, endpoint TEXT NOT NULL, stage TEXT NOT NULL, principle TEXT NOT NULL,
        request TEXT NOT NULL,
        status VARCHAR(8) NOT NULL,
        completion TEXT, problem TEXT,
        tokens_in INTEGER, tokens_out INTEGER, tokens_cached INTEGER, cost_usd FLOAT,
        asked_at FLOAT NOT NULL, answered_at FLOAT,
        attempts INTEGER NOT NULL, run TEXT NOT NULL DEFAULT '', owner TEXT, leased_until FLOAT);
INSERT INTO "calls" VALUES('d933f6bbaa60df73476b17b1e58b906c','openai/m','','label','kind','{"model":"openai/m","endpoint":"","messages":[{"role":"user","content":"answered"}],"max_tokens":8,"temperature":0.0,"top_p":1.0,"sample":0,"seed":0,"menu":{},"reasoning":true,"structured":false,"stage":"label","principle":"kind"}','answered','{"text":"yes","finish_reason":"stop","probabilities":{"a":0.25,"b":0.75},"served_by":"","tokens_in":7,"tokens_out":2,"tokens_cached":0,"tokens_cache_written":0}',NULL,7,2,0,0.25,1795250849.27306,1.79525084927368497843e+09,1,'first',NULL,NULL);
INSERT INTO "calls" VALUES('9420e22b4babb089d29313558fd9ff3d','openai/m','','label','','{"model":"openai/m","endpoint":"","messages":[{"role":"user","content":"unpriced"}],"max_tokens":8,"temperature":0.0,"top_p":1.0,"sample":0,"seed":0,"menu":{},"reasoning":true,"structured":false,"stage":"label","principle":""}','answered','{"text":"yes","finish_reason":"stop","probabilities":{"a":0.25,"b":0.75},"served_by":"","tokens_in":7,"tokens_out":2,"tokens_cached":0,"tokens_cache_written":0}',NULL,7,2,0,NULL,1.79525084927678561211e+09,1.79525084927705883986e+09,1,'first',NULL,NULL);
INSERT INTO "calls" VALUES('29417c3a259f37dc205bc5994cc61eed','openai/m','','revise','','{"model":"openai/m","endpoint":"","messages":[{"role":"user","content":"failed"}],"max_tokens":8,"temperature":0.0,"top_p":1.0,"sample":0,"seed":0,"menu":{},"reasoning":true,"structured":false,"stage":"revise","principle":""}','failed',NULL,'said',NULL,NULL,NULL,NULL,1.79525084927736616139e+09,1.79525084927763938901e+09,1,'first',NULL,NULL);
INSERT INTO "calls" VALUES('c237046c54d8e6678777c2fefae9a7a9','openai/m','','','','{"model":"openai/m","endpoint":"","messages":[{"role":"user","content":"in flight"}],"max_tokens":8,"temperature":0.0,"top_p":1.0,"sample":0,"seed":0,"menu":{},"reasoning":true,"structured":false,"stage":"","principle":""}','intent',NULL,NULL,NULL,NULL,NULL,NULL,1.79525084927826356889e+09,NULL,1,'first','b70224cde2d3:12564:2831211:6b1e8390',1.79525090927826356883e+09);
CREATE TABLE charges (
        key VARCHAR(32) NOT NULL, run TEXT NOT NULL,
        model TEXT NOT NULL, stage TEXT NOT NULL, principle TEXT NOT NULL,
        outcome VARCHAR(8) NOT NULL, ended_at FLOAT NOT NULL,
        tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, tokens_cached INTEGER NOT NULL,
        cost_usd FLOAT);
INSERT INTO "charges" VALUES('d933f6bbaa60df73476b17b1e58b906c','first','openai/m','label','kind','answered',1.79525084927368497843e+09,7,2,0,0.25);
INSERT INTO "charges" VALUES('9420e22b4babb089d29313558fd9ff3d','first','openai/m','label','','answered',1.79525084927705883986e+09,7,2,0,NULL);
INSERT INTO "charges" VALUES('29417c3a259f37dc205bc5994cc61eed','first','openai/m','revise','','failed',1.79525084927763938901e+09,0,0,0,NULL);
CREATE TABLE ledger_version (version INTEGER NOT NULL);
INSERT INTO "ledger_version" VALUES(2);
CREATE INDEX calls_in_flight ON calls (owner) WHERE status = 'intent';
COMMIT;
